"""`fleet.ctl.*`: bot and command line ask and order through the same services as panel and API."""
