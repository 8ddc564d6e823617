"""Data sets: sources -> records -> uint8 images and labels; batches; augmentation on the device."""
