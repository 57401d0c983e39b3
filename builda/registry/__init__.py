"""The distribution-spec client: pull, push, tags, logins; registries.conf; and URLs for ADD."""
