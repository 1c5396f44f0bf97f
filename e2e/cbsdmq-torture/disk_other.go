//go:build !linux

package main

import "errors"

func (w *world) mountSmall(string) error { return errors.New("only on Linux") }

func (p *pool) fill() (free func(), err error) { return nil, errors.New("only on Linux") }
