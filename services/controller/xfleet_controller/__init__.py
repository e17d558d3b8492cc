"""The controller: wanted state, accounts, the traffic ledger, panel and API."""
