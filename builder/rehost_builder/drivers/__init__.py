"""Driver packages on the workstation: verified before they go on a medium."""
