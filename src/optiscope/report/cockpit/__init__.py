"""The page and the terminal view of a watched training loop: plain data in, text out."""
