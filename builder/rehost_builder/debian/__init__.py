"""The embedded default base: a recovery system made of Debian packages, none of which is executed as root."""
