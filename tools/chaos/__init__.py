"""`gudgeon chaos`: a real device and cloud pair, taken through named faults, and the ledger of what arrived."""
