"""`python -m cloud_aug` is `cloud-aug`."""

from cloud_aug.cli import main

if __name__ == "__main__":
    main()
