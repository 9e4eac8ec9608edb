module github.com/evenkeel-go/evenkeel/bench

go 1.25

replace github.com/evenkeel-go/evenkeel => ../
