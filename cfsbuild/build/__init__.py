"""Plans, executes and explains builds."""
