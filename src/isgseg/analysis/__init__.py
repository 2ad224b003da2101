"""What to make of numbered granules: `granules` is the table, `figures` are the images."""
