"""The bookkeeping, without torch: settings, plan and catalogue of what is shown; device leases, tracking and status;
result files, tables, claims and the report.
"""
