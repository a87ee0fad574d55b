"""Libraries on what people have besides local disks: :mod:`tests.support.sources`.

The programs run with their default options, so their caches tell old sizes and dates with new
bytes. What has a kernel module of its own (NFS, SMB, exfat, …) is tried in ``make vm``.
"""
