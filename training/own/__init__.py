"""`ddnn train FOLDER`: from a labelled recording to a bundle and a report for everybody."""
