"""Back up a cloud and restore a moment of it: the store, the keys, the certificate authority, the registry, the configuration.

    <folder>/blobs/<sha256>            contents of files, each once
    <folder>/files/<time_ns>.json      which files there were at a moment, and their contents
    <folder>/sqlite/<time_ns>.{base,change}   the store, page by page                     (`sqlite_copies`)
    <folder>/postgresql/{base/<time_ns>/,wal/}  base backups, and everything written since   (`postgres_copies`)

A backup holds private keys: it is readable by its owner only, and belongs on an encrypted disk of another machine.
"""
