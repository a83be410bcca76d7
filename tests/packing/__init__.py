"""What the packager's tests share: a site to pack on, and trees compared inode by inode."""
