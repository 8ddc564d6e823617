"""Networks: the ResNet backbone, the fully attentional block, and Mancs made of both."""
