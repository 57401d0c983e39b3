"""Images between places: one source and one sink for each place, and one `copy_image` for every pair."""
