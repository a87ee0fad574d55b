"""What programs that read ZIPs make of zipfs' archives: readers x cases."""
