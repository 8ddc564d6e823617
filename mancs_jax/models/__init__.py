"""The networks of the paper: ResNet backbone, fully attentional block, and Mancs."""
