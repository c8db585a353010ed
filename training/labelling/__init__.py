"""`ddnn label`: a page on this machine on which a person says what each slot shows."""
