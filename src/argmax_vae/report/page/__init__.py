"""All tables, curves and images as one HTML file."""
