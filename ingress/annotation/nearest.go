package annotation

// nearest is the key of ours that is spelled most like this one, or "" if none is like it.
func nearest(key string) string {
	best, bestDistance := "", 4
	for i := range registry {
		candidate := registry[i].Keys[0]
		if d := distance(key, candidate); d < bestDistance {
			best, bestDistance = candidate, d
		}
	}
	return best
}

// maxKey bounds the work on a key: Kubernetes allows 63 characters after the prefix.
const maxKey = 128

// distance is the number of characters to insert, delete or replace to make a into b.
func distance(a, b string) int {
	if len(a) > maxKey {
		return maxKey
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			diagonal, row[j+1] = row[j+1], min(row[j+1]+1, row[j]+1, diagonal+cost)
		}
	}
	return row[len(b)]
}
