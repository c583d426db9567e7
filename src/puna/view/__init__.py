"""Looking at what was made: plots as SVG, and reports as one HTML file that needs no network."""
