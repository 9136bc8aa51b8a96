"""The bookkeeping: settings, plan, device leases, tracking and result files. Imports no torch."""
