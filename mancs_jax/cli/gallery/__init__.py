"""`mancs gallery`: its own first argument is a command, a module of this folder."""

COMMANDS = {
    "add": "embed new or changed images of a folder",
    "search": "find the images nearest to a query, with filters",
    "forget": "delete images, and verify that nothing of them is left",
    "list": "count people, cameras and images",
    "check": "check all files of a gallery",
    "export": "write embeddings and names as a file of mancs embed",
}
