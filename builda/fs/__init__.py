"""Trees and layers: paths inside a root, the COPY engine, tar, compression, diff and apply."""
