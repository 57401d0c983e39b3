"""Files that name many builds (bake files, compose files, matrices), read into values: pure, but for reading a file."""
