"""`fleet.ctl.*` and `fleet.ctl.cli.*`: bot and command line ask and order by the services of panel and API."""
