package state

import (
	"errors"
	"time"
)

// Feedback is what a person said about a flag.
type Feedback struct {
	// ID is unique and sorts by time; the store makes it.
	ID string `json:"id"`
	// At is when; the store sets it to the moment it is given.
	At   time.Time `json:"at"`
	Flag string    `json:"flag"`
	// Variant is what the person was served, Canary whether the flag was on for them, Split whether the split decided
	// that, so that they are to be compared.
	Variant string `json:"variant"`
	Canary  bool   `json:"canary,omitempty"`
	Split   bool   `json:"split,omitempty"`
	// Rating is one of 1 to 5, up and down.
	Rating string `json:"rating"`
	// Comment is free text of at most [MaxComment] bytes; it may be empty.
	Comment string `json:"comment,omitempty"`
	// Voter stands for the person and flag, so that their later word takes the place of their earlier one; it must not
	// identify anybody. Empty: nobody knows, and all of them are kept.
	Voter string `json:"voter,omitempty"`
}

// FeedbackFilter chooses feedback. The zero value chooses all that is not too old.
type FeedbackFilter struct {
	// Flag, unless empty, is the one flag whose feedback is wanted.
	Flag string
	// Limit, unless 0 or negative, is the largest number.
	Limit int
}

// voice is what a later record takes the place of; empty for none.
func (r *record) voice() string {
	if r.Feedback == nil || r.Feedback.Voter == "" {
		return ""
	}
	return r.Feedback.Flag + "\x00" + r.Feedback.Voter
}

// AddFeedback keeps what a person said; ID and At are set by the store. The newest are kept, up to about 4 MB, for
// [Options.Retention]. The Pending tells when it is on disk.
func (s *Store) AddFeedback(now time.Time, f Feedback) (Feedback, *Pending) {
	if f.Flag == "" {
		return Feedback{}, settled(errors.New("feedback: flag: empty, want a name"))
	}
	f.At = cleanTime(now)
	f.Flag, f.Variant, f.Rating = cleanText(f.Flag), cleanText(f.Variant), cleanText(f.Rating)
	f.Comment, f.Voter = cutText(f.Comment, MaxComment), cleanText(f.Voter)
	s.mu.Lock()
	defer s.mu.Unlock()
	f.ID = s.feedback.ids.next(now)
	p := newPending()
	waiter := p
	if err := s.unwritable(s.feedback); err != nil {
		p.settle(err)
		waiter = nil
	}
	kept := f
	s.feedback.put(record{Feedback: &kept}, waiter)
	s.signal()
	return f, p
}

// Feedback returns what people said, newest first.
func (s *Store) Feedback(now time.Time, filter FeedbackFilter) []Feedback {
	chosen := s.chooseFeedback(now.Add(-s.options.Retention), filter)
	found := make([]Feedback, len(chosen))
	for i, f := range chosen {
		found[i] = *f
	}
	return found
}

// chooseFeedback holds mu for no longer than it takes to look: trips wait for it.
func (s *Store) chooseFeedback(oldest time.Time, filter FeedbackFilter) (chosen []*Feedback) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for r := range s.feedback.newest() {
		if filter.Limit > 0 && len(chosen) == filter.Limit {
			break
		}
		if f := r.Feedback; f != nil && (filter.Flag == "" || filter.Flag == f.Flag) && !f.At.Before(oldest) {
			chosen = append(chosen, f)
		}
	}
	return chosen
}
