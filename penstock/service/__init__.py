"""What the three services share and clients never see; it is not in the wheel."""
