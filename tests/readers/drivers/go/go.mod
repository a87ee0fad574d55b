module readzip

go 1.19
