"""What every service needs to run and to report on itself."""
