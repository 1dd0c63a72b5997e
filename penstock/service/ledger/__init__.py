"""The usage ledger and the audit trail: what the gateway, the scheduler and auditors share."""
