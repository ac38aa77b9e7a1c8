"""Releases: a base or a policy reaches boards wave by wave, and goes back by itself when a wave fails.

`plan` says what a release is, `steering` what operators do, `waves` what happens by itself, `orders` and `outcomes`
what boards ask and tell, `status` what there is to see. See docs/releases.md.
"""
