"""The panel's first page: the fleet at a glance."""
