"""RomM as it is, with zipfs behind it: a stand-in that is as strict as RomM 5.2.0."""
