"""Every state of every component on one page, for those who build and check the panel."""
