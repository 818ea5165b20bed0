"""Bytes from elsewhere: whole files and byte ranges over HTTP or from a disk, checked, resumed, or refused."""
