// Package outcome says what an attempt meant.
//
// Every policy of evenkeel asks the same question after an attempt: did the
// endpoint do well, did it fail, was it the caller who gave up, was anything
// sent at all? The answer is given once per attempt, by one [Classifier], and
// told to all of them: the balancer, the breaker, the outlier detector, the
// retry and its quota. None of them looks at errors or status codes by itself,
// so they cannot disagree, and a user who replaces the classifier changes them
// all.
//
// The table of what each class means to whom is in the documentation of the
// classes.
package outcome
