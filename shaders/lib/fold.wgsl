// Where a slice of the elements that are folded starts: slices share them evenly, so that their lengths differ by one at most.
fn slice_start(slice: u32) -> u32 {
    return slice * (length() / slices()) + min(slice, length() % slices());
}

// The elements first .. last of the contiguous ones from `row` on, folded by invocation `lane` of `lanes`: SPAN at
// once wherever memory lets them be loaded so, and four such loads in flight.
fn fold_row(row: u32, first: u32, last: u32, lane: u32, lanes: u32) -> Acc {
    let stop = row + last;
    let head = min((row + first + SPAN - 1u) / SPAN * SPAN, stop);
    let tail = max(stop / SPAN * SPAN, head);
    let step = lanes * SPAN;
    var acc = identity();
    for (var at = row + first + lane; at < head; at += lanes) {
        acc = combine(acc, load(at, at - row));
    }
    var p0 = nothing();
    var p1 = nothing();
    var p2 = nothing();
    var p3 = nothing();
    var at = head + lane * SPAN;
    for (; at + 3u * step < tail; at += 4u * step) {
        let l0 = load_part(at, at - row);
        let l1 = load_part(at + step, at + step - row);
        let l2 = load_part(at + 2u * step, at + 2u * step - row);
        let l3 = load_part(at + 3u * step, at + 3u * step - row);
        p0 = merge(p0, l0);
        p1 = merge(p1, l1);
        p2 = merge(p2, l2);
        p3 = merge(p3, l3);
    }
    for (; at < tail; at += step) {
        p0 = merge(p0, load_part(at, at - row));
    }
    acc = combine(acc, join(merge(merge(p0, p1), merge(p2, p3))));
    for (at = tail + lane; at < stop; at += lanes) {
        acc = combine(acc, load(at, at - row));
    }
    return acc;
}

// The elements first .. last of SPAN neighbouring columns whose first ones are at `top`, folded by invocation `lane` of
// `lanes`, with four loads in flight.
fn fold_columns(top: u32, first: u32, last: u32, lane: u32, lanes: u32) -> Part {
    let step = lanes * stride(0u);
    var p0 = nothing();
    var p1 = nothing();
    var p2 = nothing();
    var p3 = nothing();
    var r = first + lane;
    var at = top + r * stride(0u);
    for (; r + 3u * lanes < last; r += 4u * lanes) {
        let l0 = load_part(at, r);
        let l1 = load_part(at + step, r + lanes);
        let l2 = load_part(at + 2u * step, r + 2u * lanes);
        let l3 = load_part(at + 3u * step, r + 3u * lanes);
        p0 = merge(p0, l0);
        p1 = merge(p1, l1);
        p2 = merge(p2, l2);
        p3 = merge(p3, l3);
        at += 4u * step;
    }
    for (; r < last; r += lanes) {
        p0 = merge(p0, load_part(at, r));
        at += step;
    }
    return merge(merge(p0, p1), merge(p2, p3));
}
