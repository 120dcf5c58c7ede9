"""Drawing for the command line: text, terminal pictures, PNG and SVG files."""
