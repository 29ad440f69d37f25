"""The WinPE base: the user's own Windows media become a medium that starts Rehost."""
