from baco.cli.run import main

main()
