"""Where state rests: one protocol, `tinydancer.store.base.Store`, and the stores that keep to it.

``connection``, ``failures``, ``migrations``, ``queries``, ``statistics`` and ``rows`` are what a store is made of;
``sqlite`` is the embedded store, ``candidates`` keeps candidates in the same file, ``opening`` turns what a user names
into a store.
"""
