"""Vendors as local servers: each speaks its protocol as documented, takes nothing else, and writes down what it took.

Steered by the message itself, see ``tests.vendors.steering``. ``python -m tests.vendors --help`` serves them all.
"""
