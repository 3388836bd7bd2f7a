"""Pictures that every family draws with: Gantt charts, learning curves, performance profiles."""
