"""From the photo of an Indonesian ID card (KTP) to its fields, on the processor, offline.

The pixels of a card and what is printed on it live in memory only: nothing here logs or keeps them.
"""
