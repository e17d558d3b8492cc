"""Development tools of the Xray kit; not part of the wheel."""
