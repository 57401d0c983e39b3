"""The distribution-spec client: pull, push, tags, logins; registries.conf; and URLs for ADD.

`registries` finds out what a name means and how its registry is reached, `registryclient` has a source and a sink for
`transfer`, `repository` makes the requests, and `http` sends them. `api` hands the client to the builder.

Rule: all network connections but those to engines begin in `connections`, and only `url` parses URLs.
"""
