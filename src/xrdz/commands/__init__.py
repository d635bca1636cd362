"""The commands of `xrdz`: each module registers its parser without importing anything heavy, and runs."""
