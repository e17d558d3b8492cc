"""What all pages of the panel share: shell, forms, paging."""
